FROM base AS other
RUN mkdir /from && echo other > /from/file
FROM base
RUN --mount=type=bind,target=/context cat /context/a.txt > /one && ls /context/dir > /two
RUN --mount=from=other,source=/from,target=/m,rw cat /m/file > /three && echo lost > /m/new && echo lost > /m/file
RUN --mount=from=other,source=/from/file,target=/deep/in/it cat /deep/in/it > /four
WORKDIR /work
RUN --mount=source=dir/one.txt,target=here.txt cat here.txt > copy.txt
RUN --mount=target=/ro touch /ro/x 2> /dev/null || echo read-only > /five
