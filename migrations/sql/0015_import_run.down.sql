DROP TABLE import_key;
DROP TABLE import_error;
DROP TABLE import_chunk;
DROP TABLE import_table;
DROP TABLE import_run;
