FROM base
RUN --mount=type=secret,id=key cat /run/secrets/key | wc -c > /one
RUN --mount=type=secret,id=key,target=/my/key,mode=0444,uid=1000,gid=8 stat -c '%a %u:%g %s' /my/key > /two
RUN --mount=type=secret,id=key,env=KEY test -n "$KEY" && test ! -e /run/secrets/key && echo "${#KEY}" > /three
RUN --mount=type=secret,id=absent,target=/absent test ! -e /absent && echo no > /four
