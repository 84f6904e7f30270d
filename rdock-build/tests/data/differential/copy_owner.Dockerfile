FROM base
COPY --chown=daemon:mail a.txt /new/path/a.txt
COPY --chown=app dir /app/
COPY --chown=1234 a.txt /number
COPY --chown=7:8 a.txt /numbers
COPY --chown=0:mail a.txt /group
ARG who=daemon
COPY --chown=${who}:${who} empty /variable/
