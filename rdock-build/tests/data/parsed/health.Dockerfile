FROM scratch
HEALTHCHECK NONE
HEALTHCHECK --interval=1m30s --timeout=.5s --retries=3 --start-period=2h --start-interval=0 CMD curl -f localhost || exit 1
HEALTHCHECK cmd ["/check", "x"]
