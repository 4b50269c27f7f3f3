"""The exit codes of `embedsvc`, each of one meaning."""

EXIT_BAD = 1
EXIT_USAGE = 2
EXIT_SETTING = 3
EXIT_MODEL = 4
EXIT_ADDRESS = 5
EXIT_BULK = 6
EXIT_HUNG = 7
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
EXIT_TERMINATED = 143
EXITS = {
    0: "it did what it was told",
    EXIT_BAD: "it did not, or not all of it, or what it looked at is not well",
    EXIT_USAGE: "its command line is wrong",
    EXIT_SETTING: "a setting, the cards file, a key or a certificate is wrong",
    EXIT_MODEL: "a model cannot be loaded",
    EXIT_ADDRESS: "its address and port are taken, or not of this machine",
    EXIT_BULK: "embedding or searching files cannot begin or go on",
    EXIT_HUNG: "the device or event loop hung, a model stayed broken, or stopping took too long",
    EXIT_INTERRUPTED: "it was interrupted (Ctrl-C), a server for the second time",
    EXIT_PIPE: "nobody reads what it prints any more",
    EXIT_TERMINATED: "a server was told to stop for the second time (SIGTERM)",
}
