DROP FUNCTION job_history_rotate(integer);
DROP TABLE job_history;
