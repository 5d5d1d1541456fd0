DROP TABLE asset;
