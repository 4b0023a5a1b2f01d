using NopeGpt.Jobs;

namespace NopeGpt.Web.Api;

/// <summary>GET /api/runs/{id}/log?from=BYTE: trainer.log in parts. A negative number counts from the end. /log?whole=1: all of it.</summary>
internal static class LogEndpoint
{
    private const int LargestPart = 1 << 20;

    /// <summary>Text from that byte on, a megabyte at most, whole UTF-8 characters; X-Log-From, X-Log-Next and X-Log-Length say where it lies.</summary>
    public static async Task<IResult> GetAsync(string id, HttpContext context, Store store, CancellationToken cancel)
    {
        string text = context.Request.Query["from"].ToString();
        if (!long.TryParse(text.Length == 0 ? "0" : text, out long from)) return ApiProblems.Bad("from", text, "must be a whole number of bytes; a negative one counts from the end");
        string whole = context.Request.Query["whole"].ToString();
        if (whole is not ("" or "0" or "1")) return ApiProblems.Bad("whole", whole, "must be 1 for the whole log, or 0");
        if (!RunFolder.TryOpen(store, id, out RunFolder? folder)) return ApiProblems.NoSuchRun(id);
        context.Response.Headers.XContentTypeOptions = "nosniff";
        if (whole == "1") return Whole(folder);
        byte[] part = [];
        long length = 0;
        if (HasLog(folder))
        {
            await using FileStream stream = new(folder.LogPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            length = stream.Length;
            from = Math.Clamp(from < 0 ? length + from : from, 0, length);
            stream.Position = from;
            part = new byte[Math.Min(length - from, LargestPart)];
            part = part[..await stream.ReadAtLeastAsync(part, part.Length, throwOnEndOfStream: false, cancel)];
        }
        else
        {
            from = 0;
        }
        (int start, int end) = WholeCharacters(part);
        context.Response.Headers["X-Log-From"] = (from + start).ToString();
        context.Response.Headers["X-Log-Next"] = (from + end).ToString();
        context.Response.Headers["X-Log-Length"] = length.ToString();
        return Results.Bytes(part.AsMemory(start, end - start), "text/plain; charset=utf-8");
    }

    // Without a length: a trainer that works may write more while it is sent.
    private static IResult Whole(RunFolder folder) => HasLog(folder)
        ? Results.Stream(to => CopyAsync(folder.LogPath, to), "text/plain; charset=utf-8")
        : Results.Bytes([], "text/plain; charset=utf-8");

    // A link would show any file that this process may read.
    private static bool HasLog(RunFolder folder) => new FileInfo(folder.LogPath) is { Exists: true, LinkTarget: null };

    private static async Task CopyAsync(string path, Stream to)
    {
        await using FileStream from = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        await from.CopyToAsync(to);
    }

    /// <summary>Leaves out the rest of a character at the start, and the beginning of one at the end: the next part brings it.</summary>
    internal static (int Start, int End) WholeCharacters(ReadOnlySpan<byte> utf8)
    {
        int start = 0;
        while (start < Math.Min(3, utf8.Length) && IsContinuation(utf8[start])) start++;
        for (int back = 1; back <= Math.Min(4, utf8.Length - start); back++)
        {
            byte one = utf8[^back];
            if (IsContinuation(one)) continue;
            int needs = one switch { >= 0xF0 => 4, >= 0xE0 => 3, >= 0xC0 => 2, _ => 1 };
            return (start, needs > back ? utf8.Length - back : utf8.Length);
        }
        return (start, utf8.Length);
    }

    private static bool IsContinuation(byte one) => (one & 0xC0) == 0x80;
}
