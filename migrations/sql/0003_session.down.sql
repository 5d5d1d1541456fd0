DROP TABLE refresh_token;
DROP TABLE session;
