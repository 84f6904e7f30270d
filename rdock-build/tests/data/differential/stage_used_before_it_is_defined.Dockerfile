FROM scratch AS first
COPY --from=later /x /x
FROM base AS later
