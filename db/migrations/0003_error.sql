-- Why a sandbox's host can neither run nor resume what it keeps of it. Rows in status 'error' without a reason are
-- those whose creation failed: nothing is left of them.
ALTER TABLE sandboxes ADD COLUMN error_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE sandboxes ADD COLUMN error_message TEXT NOT NULL DEFAULT '';
-- What a reconcile pass reads, page by page, however many sandboxes have ended.
CREATE INDEX sandboxes_live ON sandboxes (host_id, id)
  WHERE (transition <> '' OR (status <> 'stopped' AND (status <> 'error' OR error_reason <> '')));
DROP INDEX sandboxes_host_status;
