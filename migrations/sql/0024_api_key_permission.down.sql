-- The permissions that keys lost stay lost: an older program would not know that they were withdrawn on purpose.
ALTER TABLE api_key DROP CONSTRAINT api_key_permissions_check;
ALTER TABLE api_key DROP COLUMN withdrawn;
