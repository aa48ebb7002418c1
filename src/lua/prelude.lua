-- Errors raised by Rust functions arrive as userdata; scripts shall find plain strings in them.
-- `ending` gives the error that ends the script, which no pcall may catch, if that is what came; `exit` raises one.
local plain, ending, exit, traced, traceback = ...

local function returned(ok, ...)
  if ok then return true, ... end
  local err = ...
  local ended = ending(err)
  if ended then error(ended, 0) end
  return false, plain(err)
end

local pcall_, xpcall_ = pcall, xpcall

function pcall(f, ...)
  return returned(pcall_(f, ...))
end

function xpcall(f, handler, ...)
  return returned(xpcall_(f, function(err)
    if ending(err) then return err end
    return handler(plain(err))
  end, ...))
end

local resume_, close_ = coroutine.resume, coroutine.close

function coroutine.resume(...)
  return returned(resume_(...))
end

function coroutine.close(...)
  return returned(close_(...))
end

-- A chunk may be read piece by piece from a function, whose errors `load` returns.
local load_ = load

local function loaded(chunk, err)
  if chunk then return chunk end
  local ended = ending(err)
  if ended then error(ended, 0) end
  return nil, plain(err)
end

function load(...)
  return loaded(load_(...))
end

debug = {traceback = traceback}
package.loaded.debug = debug

-- Lua's own would leave without finishing runs.
function os.exit(code)
  exit(code)
end

-- Rust prints through the same stream; lines keep their order.
io.stdout:setvbuf("line")

-- Runs the script. An error that is no string is put into words while its traceback is still there.
return function(script)
  local ok, err = xpcall_(script, traced)
  if not ok then error(err, 0) end
end
