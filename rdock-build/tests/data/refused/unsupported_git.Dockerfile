FROM scratch
ADD https://host/repository.git#main:dir /x
