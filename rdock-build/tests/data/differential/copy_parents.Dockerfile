FROM scratch
COPY --parents dir/sub/three.txt /a/
COPY --parents node/./pkg/index.js /b/
COPY --parents dir/*.md other/*.txt /c/
COPY --parents dir/**/*.txt /d/
