FROM base AS broken
RUN exit 1
FROM scratch AS needed
COPY a.txt /needed
FROM scratch
COPY --from=needed /needed /
