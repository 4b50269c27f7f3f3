"""From a request's inputs to its results: engines, queues, caches, and models that come and go."""
