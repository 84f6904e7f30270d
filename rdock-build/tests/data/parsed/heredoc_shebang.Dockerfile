FROM scratch
RUN <<run.py
#!/usr/bin/env python3
print(1)
run.py
