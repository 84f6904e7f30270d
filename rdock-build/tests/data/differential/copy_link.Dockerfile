FROM base
RUN mkdir /there && echo old > /there/a.txt
COPY --link a.txt /there/a.txt
COPY --link --chown=3:4 dir /linked/
COPY --link --from=base /etc/group /linked/
