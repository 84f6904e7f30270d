FROM scratch
COPY --chmod=755 <<one.sh <<-"two" file /dir/
#!/bin/sh
one.sh
	kept $x
two
ADD << EOF /x
text
EOF
