FROM base
COPY --chmod=0640 dir /octal/
COPY --chmod=4755 a.txt /setuid
COPY --chmod=700 run.sh /new/dirs/run.sh
