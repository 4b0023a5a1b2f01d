using System.Buffers;
using System.Text;
namespace NopeGpt.Data.Documents.Framing;

/// <summary>Finds the records of a json file that is one object around a list of them, such as {"version": 1, "data": [{...}, ...]}. The file is
/// looked through once; in one of several values the search ends behind the first.</summary>
internal sealed class JsonEnvelope
{
    /// <summary>What lists of records are called. One of another name must be alone in its object.</summary>
    private static readonly string[] _listNames = ["data", "dataset", "rows", "records", "examples", "instances", "items", "entries", "samples", "documents", "train"];

    /// <summary>A list of objects that have one of these is a conversation, which is a record itself.</summary>
    private static readonly string[] _messageNames = ["role", "from"];

    private const int ChunkBytes = 1 << 20, LongestName = 256, InObject = 1, InList = 2, InElement = 3;
    private static readonly SearchValues<byte> _marks = SearchValues.Create("\"[]{}:"u8), _textMarks = SearchValues.Create("\"\\"u8);
    private readonly List<byte> _open = [];
    private readonly StringBuilder _text = new();
    private bool _inText, _escaped, _whole, _inFirst, _isConversation;
    private int _properties;
    private string _property = "";

    // The list that has no element yet; the list of records, and behind it.
    private long _empty = -1, _begin = -1, _end = -1;

    /// <returns>Where the list begins, at its bracket, and what is behind its closing one, or behind every file where that is missing; null where the file
    /// is no such object.</returns>
    public static (long Begin, long End)? Find(Stream stream)
    {
        byte[] chunk = new byte[ChunkBytes];
        JsonEnvelope search = new();
        long offset = 0;
        try
        {
            for (int read; (read = stream.Read(chunk)) > 0; offset += read)
                if (!search.Pass(chunk.AsSpan(0, read), offset)) return null;
        }
        catch (Exception damage) when (SalvagingStream.IsDamage(damage)) { /* what stands before can be read, and reading it says what is wrong */ }
        bool found = search._begin >= 0 && !search._isConversation && (search._properties == 1 || _listNames.Contains(search._property, StringComparer.OrdinalIgnoreCase));
        return found ? (search._begin, search._end >= 0 ? search._end : long.MaxValue) : null;
    }

    /// <summary>Goes through the next piece; false where the file turns out not to be such an object.</summary>
    private bool Pass(ReadOnlySpan<byte> data, long offset)
    {
        int at = offset == 0 && data.StartsWith((ReadOnlySpan<byte>)[0xef, 0xbb, 0xbf]) ? 3 : 0;
        if (_open.Count == 0 && !_whole)
        {
            at = data.Length - data[at..].TrimStart(" \t\r\n"u8).Length;
            if (at == data.Length) return true;
            if (data[at] != '{') return false;
        }
        while (!_whole && at < data.Length)
        {
            if (_escaped)
            {
                (_escaped, at) = (false, at + 1);
                continue;
            }
            ReadOnlySpan<byte> rest = data[at..];
            int next = rest.IndexOfAny(_inText ? _textMarks : _marks), end = next < 0 ? rest.Length : next;
            // Only what may be a name is kept.
            if (_inText && (_open.Count == InObject || _inFirst) && _text.Length < LongestName) _text.Append(Encoding.Latin1.GetString(rest[..Math.Min(end, LongestName)]));
            at += next < 0 ? end : end + 1;
            if (next >= 0 && !Take(rest[next], offset + at - 1)) return false;
        }
        // Behind the object nothing may stand.
        return !_whole || data[at..].TrimStart(" \t\r\n"u8).IsEmpty;
    }

    private bool Take(byte mark, long place)
    {
        if (mark == '\\') _escaped = true;
        else if (mark == '"')
        {
            _inText = !_inText;
            if (_inText) _text.Clear();
        }
        else if (mark == ':') Name();
        else if (mark is (byte)'{' or (byte)'[') return Open(mark, place);
        else return Close(mark, place);
        return true;
    }

    private void Name()
    {
        if (_open.Count == InElement && _inFirst) _isConversation |= _messageNames.Contains(_text.ToString());
        if (_open.Count != InObject) return;
        _properties++;
        if (_begin < 0) _property = _text.ToString();
    }

    /// <summary>False for a second list of objects: then it is not known which one is meant.</summary>
    private bool Open(byte mark, long place)
    {
        _open.Add(mark);
        if (_open.Count == InList) _empty = mark == '[' ? place : -1;
        if (_open.Count != InElement || _empty < 0) return true;
        if (mark == '{' && _begin >= 0) return false;
        if (mark == '{') (_begin, _inFirst) = (_empty, true);
        _empty = -1;
        return true;
    }

    /// <summary>False where that closes nothing.</summary>
    private bool Close(byte mark, long place)
    {
        if (_open[^1] != (mark == '}' ? '{' : '[')) return false;
        if (_open.Count == InElement) _inFirst = false;
        _open.RemoveAt(_open.Count - 1);
        if (_open.Count == InObject && _begin >= 0 && _end < 0) _end = place + 1;
        _whole = _open.Count == 0;
        return true;
    }
}
