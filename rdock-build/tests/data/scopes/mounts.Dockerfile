FROM scratch
ARG target=/c id=key kind=cache
RUN --mount=type=$kind,target=${target}/x,id=$id --mount=type=secret,id=$id,env=KEY --mount=target=. --mount=type=tmpfs,target=/t,size=1g,ro true
