FROM base
ENV name=value
COPY <<one.txt <<"two.txt" <<-three.txt a.txt /x/
$name ${none:-default} \$name "quoted"
one.txt
$name
two.txt
	tabs $name
		more
three.txt
COPY --chmod=755 --chown=app:app <<EOF /script
#!/bin/sh
echo hello
EOF
RUN /script > /out
