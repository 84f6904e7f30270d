FROM base AS made
RUN mkdir /s && cd /s && mkfifo -m 0622 pipe && echo x > one && ln one two && ln -s none dangling && dd if=/dev/zero of=hole bs=1 count=0 seek=100000 2> /dev/null && chown 12:34 one && chmod 2750 .
FROM scratch
COPY --from=made /s /s/
