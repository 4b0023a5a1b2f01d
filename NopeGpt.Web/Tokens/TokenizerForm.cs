using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Model;
using NopeGpt.Web.Components.Parts;

namespace NopeGpt.Web.Tokens;

/// <summary>The form of a tokenizer run: what was typed, the configuration that it makes, and all that is wrong with it.</summary>
internal sealed class TokenizerForm
{
    private const string SpecialsPath = "tokenizer.special_tokens";

    private readonly Store _store;
    private readonly Dictionary<string, string> _typed = new(StringComparer.Ordinal);
    private string _more = "";
    private bool _chat;

    public TokenizerForm(Store store)
    {
        _store = store;
        Sources = [.. SourcesOf(store)];
        if (Sources.Count > 0) _typed["tokenizer.source"] = Sources[0];
        Check();
    }

    /// <summary>The settings with a field of their own, as they stand in the form.</summary>
    public static IReadOnlyList<Setting> Fields { get; } = [.. Settings.All.Where(s => s.Section == "tokenizer" && s.Path != SpecialsPath)];

    /// <summary>Texts to begin with: those that the store's data sets were made from.</summary>
    public IReadOnlyList<string> Sources { get; }

    public RunConfig Config { get; private set; } = new();

    public IReadOnlyList<Problem> Problems { get; private set; } = [];

    /// <summary>Special tokens for conversations.</summary>
    public bool ChatMarkers
    {
        get => _chat;
        set
        {
            _chat = value;
            Check();
        }
    }

    /// <summary>Further special tokens, one a line.</summary>
    public string MoreSpecials
    {
        get => _more;
        set
        {
            _more = value;
            Check();
        }
    }

    public string Text(Setting setting) => _typed.TryGetValue(setting.Path, out string? typed) ? typed : ConfigTable.Text(Settings.Get(Config, setting));

    public void Type(Setting setting, string text)
    {
        _typed[setting.Path] = text;
        Check();
    }

    public IEnumerable<Problem> ProblemsOf(Setting setting) => Problems.Where(p => p.Field == setting.Path);

    public IEnumerable<Problem> SpecialProblems => Problems.Where(p => p.Field == SpecialsPath);

    /// <summary>What a source on this machine holds, in a few words; null where it cannot be read, which the run's checks tell. Reads files.</summary>
    public static string? Describe(string address, CancellationToken cancel)
    {
        try
        {
            if (address == PrepareConfig.Stories) return "Stories that the program makes, 8 MB of them at most.";
            if (OpenedSource.NameOf(address) is { } hub) return $"The data set {hub.Dataset} of the Hub: the run gets the files that it reads.";
            Source source = Source.Open(address);
            string columns = string.Join(", ", source.Columns(cancel).Take(12));
            return $"{(source.Files.Count == 1 ? "1 file" : $"{source.Files.Count:N0} files")}, {Figures.Bytes(source.Length)} as stored; columns: {columns}.";
        }
        catch (InvalidDataException e) { return e.Message; }
        catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException or FormatException) { return null; }
    }

    private void Check()
    {
        List<Problem> problems = [];
        RunConfig config = new() { Kind = RunKind.Tokenizer };
        foreach ((string path, string text) in _typed) config = Settings.BindText(config, path, text.Trim(), problems);
        string[] more = _more.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        config = config with
        {
            Name = $"Tokenizer {config.Tokenizer.Name}".Trim(),
            Tokenizer = config.Tokenizer with { SpecialTokens = [Tokenizer.EndOfText, .. _chat ? ChatFormat.Markers : [], .. more] },
        };
        Config = config;
        // A field that cannot be read keeps its old value, of which there is nothing more to say.
        Problems = [.. problems, .. RunConfigChecks.All(config, _store).Where(p => problems.All(q => q.Field != p.Field))];
    }

    private static IEnumerable<string> SourcesOf(Store store) => new DatasetCatalog(store).Datasets()
        .Select(d => File.Exists(Path.Combine(d.Folder, "stories.jsonl")) ? Path.Combine(d.Folder, "stories.jsonl") : d.Info?.Recipe.Source)
        .OfType<string>().Append(PrepareConfig.Stories).Distinct(StringComparer.Ordinal);
}
