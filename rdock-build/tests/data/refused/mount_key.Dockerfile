FROM scratch
RUN --mount=type=bind,targte=/x true
