-- Part of the scripts that judge the index entries of a job; it follows states.lua.

local places, right = {}, {} -- the places of one job in question, and for each the letters that it should stand under

-- ask_about puts a place in question. status is that of a stored copy which has this place, nil where none has.
local function ask_about(place, status)
  if not right[place] then
    right[place] = {}
    places[#places + 1] = place
  end
  if status ~= nil then
    right[place].z = true
    if LETTER[status] then
      right[place][LETTER[status]] = true
    end
  end
end

-- is_index tells whether a key may hold an index.
local function is_index(key)
  local kind = redis.call('TYPE', key).ok
  return kind == 'zset' or kind == 'none'
end

-- wrong_entries gives the entries of the places in question that are not there and should be, and those that are and
-- should not be. Where something else stands in the place of the index, none is wrong.
local function wrong_entries(index)
  if #places == 0 or not is_index(index) then
    return {}, {}
  end
  local entries, wanted = {}, {}
  for _, place in ipairs(places) do
    for _, letter in ipairs({'z', 'p', 'r', 'c', 'f'}) do
      entries[#entries + 1] = letter .. place
      wanted[#entries] = right[place][letter] or false
    end
  end
  local found = redis.call('ZMSCORE', index, unpack(entries))
  local missing, extra = {}, {}
  for i, entry in ipairs(entries) do
    if wanted[i] and not found[i] then
      missing[#missing + 1] = entry
    elseif found[i] and not wanted[i] then
      extra[#extra + 1] = entry
    end
  end
  return missing, extra
end
