FROM base AS shell
HEALTHCHECK --interval=5s --retries=4 CMD test -e /x || exit 1
FROM shell
LABEL a=b
