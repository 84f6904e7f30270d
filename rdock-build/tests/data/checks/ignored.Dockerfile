FROM scratch
COPY secret.txt ./logs/ keep /x/
ADD https://host/secret.txt logs/a /y/
COPY --from=0 secret.txt /z
