"""Answers at port 8000 with a value that the database keeps."""

import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pymysql


def connect():
    # depends_on alone says that the server was started, not that it answers.
    while True:
        try:
            return pymysql.connect(host="db", user="root", password="1234", database="shop")
        except pymysql.err.OperationalError as error:
            print("waiting for db:", error.args[0])
            time.sleep(0.2)


def value():
    with connect() as db, db.cursor() as cursor:
        cursor.execute("select v from answers")
        return cursor.fetchone()[0]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"the answer is {value()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with connect() as db, db.cursor() as cursor:
    cursor.execute("create table if not exists answers (v int)")
    cursor.execute("insert into answers values (42)")
    db.commit()
print("ready")
HTTPServer(("", 8000), Handler).serve_forever()
