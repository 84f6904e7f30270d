FROM base
RUN --mount=type=cache,id=differential,target=/c,uid=1000,gid=1001,mode=0700 stat -c '%a %u:%g' /c > /one
RUN --mount=type=cache,id=differential,target=/d,uid=1000,gid=1001,mode=0700 echo x > /d/file
RUN --mount=type=cache,id=differential,target=/c,uid=1000,gid=1001,mode=0700,ro cat /c/file > /two
RUN --mount=type=cache,target=/e,from=base,source=/etc ls /e/passwd > /three
