DROP TABLE asset_tag;
DROP TABLE tag;
