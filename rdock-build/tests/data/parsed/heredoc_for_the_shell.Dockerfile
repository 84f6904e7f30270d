FROM scratch
RUN cat <<A > /a && cat 3<<"B" >&3
in a
A
in b
B
RUN echo "<<NOT" && echo '<<ONE'
RUN ["echo", "<<EOF"]
