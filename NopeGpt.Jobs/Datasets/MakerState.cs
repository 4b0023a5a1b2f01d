using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Jobs.Configuration;

namespace NopeGpt.Jobs.Datasets;

/// <summary>What the files of a data set in the making are made of, so that the next attempt goes on with them or begins anew.</summary>
/// <param name="Recipe">Without the name and what changes nothing in the result.</param>
/// <param name="Source">The address with its commit for a data set of the Hub, whose revision may move on between two attempts: the first one's commit
/// counts. The fingerprint of files. Empty for stories.</param>
internal sealed record MakerState(PrepareConfig Recipe, ulong Seed, string Source, string? Licence)
{
    public const string FileName = "made-of.json";

    /// <summary>The recipe in one of the ways in which it can be written.</summary>
    public static PrepareConfig Normal(PrepareConfig recipe) => recipe with { Dataset = "", Workers = 0, Source = Address(recipe.Source) };

    private static string Address(string source)
    {
        if (source is PrepareConfig.Stories or "") return source;
        try { return OpenedSource.NameOf(source)?.ToString() ?? Path.GetFullPath(source); }
        catch (FormatException) { return source; }
    }

    /// <summary>Null where there is none, or it is damaged.</summary>
    public static MakerState? Read(string folder) => JsonFile.TryRead<MakerState>(Path.Combine(folder, FileName));

    public void Write(string folder) => JsonFile.Write(Path.Combine(folder, FileName), this);
}

/// <summary>What encoding made. It is written when the tokens are whole, so that nothing is encoded twice.</summary>
/// <param name="Reading">What was wrong in the source.</param>
/// <param name="Chat">What became of the records; null for text.</param>
internal sealed record MadeTokens(long Documents, long TextBytes, long Tokens, ReadingReport Reading, TokenStatistics Statistics, ChatStatistics? Chat)
{
    public const string FileName = "encoded.json";

    public static bool IsIn(string folder) => File.Exists(Path.Combine(folder, FileName));

    /// <summary>Null where the tokens are not whole.</summary>
    public static MadeTokens? Read(string folder, string tokens)
    {
        if (JsonFile.TryRead<MadeTokens>(Path.Combine(folder, FileName)) is not { Reading: not null, Statistics: not null } made) return null;
        try
        {
            using TokenFile file = TokenFile.Open(tokens);
            return file.Count == made.Tokens && file.DocumentCount == made.Documents ? made : null;
        }
        catch (Exception e) when (e is FileNotFoundException or InvalidDataException) { return null; }
    }

    public void Write(string folder) => JsonFile.Write(Path.Combine(folder, FileName), this);
}

/// <summary>Small JSON documents that are whole or not there.</summary>
internal static class JsonFile
{
    /// <summary>Null where there is none, or it is damaged.</summary>
    public static T? TryRead<T>(string path) where T : class
    {
        try { return File.Exists(path) ? JsonSerializer.Deserialize<T>(File.ReadAllText(path), Settings.Json) : null; }
        catch (JsonException) { return null; }
    }

    /// <summary>Written aside, flushed and renamed.</summary>
    public static void Write<T>(string path, T value)
    {
        string aside = path + ".new";
        using (FileStream file = new(aside, FileMode.Create, FileAccess.Write))
        {
            JsonSerializer.Serialize(file, value, Settings.Json);
            file.WriteByte((byte)'\n');
            file.Flush(flushToDisk: true);
        }
        File.Move(aside, path, overwrite: true);
    }
}
