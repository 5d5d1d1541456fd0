DROP INDEX asset_service_idx;
DROP TABLE dependency;
