-- Asks the operators' API whose key a login holds. Loaded by people.cfg; WHOAMI_URL is the API's /v1/whoami.
--
-- Sets txn.person to the name, in UTF-8, or txn.login to "wrong" or "unavailable". The password is the API key; the name
-- that a browser asks for beside it does not count.

local url = os.getenv("WHOAMI_URL") .. "?scope=operator"

core.register_action("whoami", { "http-req" }, function(txn)
  local shown = txn.http:req_get_headers()["authorization"]
  if shown == nil then return end
  local answer = core.httpclient():get{ url = url, headers = { authorization = { shown[0] } }, timeout = 3000 }
  local name = answer ~= nil and answer.headers and answer.headers["x-release-operator"]
  if answer ~= nil and answer.status == 200 and name then
    txn:set_var("txn.person", name[0])
  elseif answer ~= nil and (answer.status == 401 or answer.status == 403) then
    txn:set_var("txn.login", "wrong")
  else
    txn:set_var("txn.login", "unavailable")
  end
end, 0)
