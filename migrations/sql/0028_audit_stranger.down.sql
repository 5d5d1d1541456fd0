DROP FUNCTION audit_delete_strangers(integer);
DROP FUNCTION audit_append_stranger(text, jsonb, inet, text);
DROP TABLE audit_stranger;
