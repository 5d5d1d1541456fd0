DROP TABLE login_guard;
