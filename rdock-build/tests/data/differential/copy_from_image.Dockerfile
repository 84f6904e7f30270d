FROM scratch
COPY --from=base /etc/passwd /etc/group /etc/
