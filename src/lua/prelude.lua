-- Errors raised by Rust functions arrive as userdata; scripts shall find plain strings in them.
local plain, finished = ...

local function returned(ok, ...)
  if ok then return true, ... end
  local err = ...
  if finished(err) then error(err, 0) end
  return false, plain(err)
end

local pcall_, xpcall_ = pcall, xpcall

function pcall(f, ...)
  return returned(pcall_(f, ...))
end

function xpcall(f, handler, ...)
  return returned(xpcall_(f, function(err)
    if finished(err) then return err end
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

-- Rust prints through the same stream; lines keep their order.
io.stdout:setvbuf("line")
