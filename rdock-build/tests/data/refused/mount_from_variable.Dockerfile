FROM scratch
RUN --mount=type=bind,from=$x,target=/x true
