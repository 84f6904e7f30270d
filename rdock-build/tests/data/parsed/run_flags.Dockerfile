FROM scratch
RUN --mount=type=bind,from=base,source=/a,target=/b,rw --mount=type=cache,target=/c,id="x y",sharing=locked,mode=0700,uid=1,gid=2 make
RUN --network=none --security=sandbox true
RUN --mount="type=secret,id=key,target=/run/key,required" --mount=type=tmpfs,target=/t,size=64m true
RUN --mount=type=$kind,target=$where true
RUN --device=vendor.com/class=name,required true
RUN -- --not-a-flag
