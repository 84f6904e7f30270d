FROM base
RUN <<EOF
echo one > /one
name=two
echo $name > /two
EOF
RUN <<-'END'
	echo tabs > /three
	END
RUN <<script sh
echo $0 piped > /four
script
RUN <<EOF
#!/bin/busybox sh
echo "$0" > /five
EOF
RUN cat <<A > /six && cat <<"B" > /seven
in a
A
in $b
B
