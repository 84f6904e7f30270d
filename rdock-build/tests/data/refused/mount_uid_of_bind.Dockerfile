FROM scratch
RUN --mount=type=bind,target=/x,uid=1 true
