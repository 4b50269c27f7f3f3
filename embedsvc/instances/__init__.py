"""The life of models: loaded when asked for, within a memory budget, and unloaded."""
