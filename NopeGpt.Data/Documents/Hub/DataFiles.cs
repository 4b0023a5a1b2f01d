using System.Text.RegularExpressions;

namespace NopeGpt.Data.Documents.Hub;

/// <summary>A subset as a data set's card describes it.</summary>
/// <param name="Splits">Patterns of files by split; empty when the names in the folder tell.</param>
/// <param name="Folder">The folder of the subset; null for all.</param>
internal sealed record CardSubset(string Name, bool IsDefault, string? Folder, IReadOnlyList<(string Split, string[] Patterns)> Splits);

/// <summary>Tells from names which files belong to which split, by the rules of the Hub
/// (huggingface.co/docs/hub/datasets-file-names-and-splits and datasets-manual-configuration).</summary>
internal static partial class DataFiles
{
    public const string Train = "train";

    private static readonly (string Split, string[] Words)[] _words =
    [
        (Train, [Train, "training"]), ("validation", ["validation", "valid", "val", "dev"]), ("test", ["test", "testing", "eval", "evaluation"]),
    ];

    /// <summary>The files of each split. Files that are no data, and those of a rarer format beside parquet, are left out.</summary>
    public static IReadOnlyList<(string Split, IReadOnlyList<HubFile> Files)> Splits(IEnumerable<HubFile> files)
    {
        HubFile[] data = OneFormat(files);
        (string? Split, HubFile File)[] named = [.. data.Select(f => (Numbered(f.Path), f))];
        if (!named.Any(n => n.Split is not null)) named = [.. data.Select(f => (Spoken(f.Path), f))];
        // Where no name tells of a split, all is to train on; where some do, the others belong to none.
        if (!named.Any(n => n.Split is not null)) return data.Length == 0 ? [] : [(Train, data)];
        return [.. named.Where(n => n.Split is not null).GroupBy(n => n.Split!, n => n.File).Select(g => (g.Key, (IReadOnlyList<HubFile>)[.. g]))];
    }

    /// <summary>The files that patterns mean.</summary>
    public static HubFile[] Matching(IEnumerable<HubFile> files, IEnumerable<string> patterns)
    {
        string[] all = [.. patterns];
        return OneFormat(files.Where(f => all.Any(p => FileSet.Matches(p, f.Path))));
    }

    /// <summary>The folder that everything a pattern can match lies in; empty for the root.</summary>
    public static string FolderOf(string pattern)
    {
        int wild = pattern.AsSpan().IndexOfAny('*', '?');
        int slash = (wild < 0 ? pattern : pattern[..wild]).LastIndexOf('/');
        return slash < 0 ? "" : pattern[..slash];
    }

    private static HubFile[] OneFormat(IEnumerable<HubFile> files)
    {
        HubFile[] data = [.. files.Where(f => SourceFile.FormatOf(f.Path) is not null && !f.Path.Split('/').Any(p => p.StartsWith('.'))).OrderBy(f => f.Path, StringComparer.Ordinal)];
        if (data.Length == 0) return data;
        bool parquet = data.Any(f => SourceFile.FormatOf(f.Path) == FileFormat.Parquet);
        FileFormat format = parquet ? FileFormat.Parquet : data.GroupBy(f => SourceFile.FormatOf(f.Path)!.Value).MaxBy(g => g.Count())!.Key;
        return [.. data.Where(f => SourceFile.FormatOf(f.Path) == format)];
    }

    /// <summary>The split in a name such as data/train_prefs-00000-of-00004-0123456789abcdef.parquet.</summary>
    private static string? Numbered(string path) => NumberedForm().Match(path) is { Success: true } match ? match.Groups[1].Value : null;

    /// <summary>The split whose word stands in a folder's or the file's name, between characters that are no letters.</summary>
    private static string? Spoken(string path)
    {
        string[] parts = path.Split('/');
        foreach (string part in parts.Reverse())
        {
            string[] words = [.. LettersForm().Matches(part).Select(m => m.Value.ToLowerInvariant())];
            foreach ((string split, string[] names) in _words)
                if (words.Any(names.Contains)) return split;
        }
        return null;
    }

    [GeneratedRegex(@"(?:^|/)(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*$", RegexOptions.CultureInvariant)]
    private static partial Regex NumberedForm();

    [GeneratedRegex("[A-Za-z]+", RegexOptions.CultureInvariant)]
    private static partial Regex LettersForm();
}
