DROP TABLE custody;
