using System.Globalization;
using System.Text.RegularExpressions;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Model;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>What is known of the files that a source means, without reading them.</summary>
/// <param name="Problem">Why they cannot be read.</param>
public sealed record SourceFacts(string Source, int Files, long Bytes, string? Problem);

/// <summary>The form of a new data set: where its records are, what was typed, and all that is wrong with it. Its state is a list of names and texts,
/// which the page's address carries.</summary>
public sealed partial class PrepareForm
{
    private const string Section = "prepare.";

    // Parts of a name on the Hub, for fields of their own.
    private readonly string[] _hub = ["", "", "", ""];
    private readonly Store _store;
    private readonly Dictionary<string, string> _typed = new(StringComparer.Ordinal);
    private string _path = "", _uploaded = "", _tokenizerChecked = "";
    private IReadOnlyList<Problem> _tokenizerProblems = [];
    private SourceFacts? _facts;

    public PrepareForm(Store store, IEnumerable<KeyValuePair<string, string>> state)
    {
        _store = store;
        foreach ((string name, string text) in state)
        {
            if (name == "add" && Enum.TryParse(text, ignoreCase: true, out SourceMode mode) && Enum.IsDefined(mode)) Mode = mode;
            else if (name == "source") TakeSource(text);
            else if (Fields.FirstOrDefault(f => f.Name == name) is { } field) _typed[field.Path] = text;
        }
        Check();
    }

    /// <summary>The settings that have a field of the usual kind.</summary>
    public static IReadOnlyList<Setting> Fields { get; } = [.. Settings.All.Where(s => s.Section == "prepare" && s.Name is not ("source" or "text_column") || s.Path == "seed")];

    public SourceMode Mode { get; private set; }

    /// <summary>OWNER/NAME, subset, split and revision on the Hub.</summary>
    public IReadOnlyList<string> Hub => _hub;

    public KnownDataset? Known => Mode == SourceMode.Hub ? KnownDatasets.Find(_hub[0].Trim()) : null;

    /// <summary>The path of <see cref="SourceMode.Files"/>.</summary>
    public string Path => _path;

    public string Uploaded => _uploaded;

    /// <summary>The source's address; empty while it is not chosen.</summary>
    public string Source => Mode switch
    {
        SourceMode.Hub => HubAddress(),
        SourceMode.Files => _path.Trim(),
        SourceMode.Upload => _uploaded,
        _ => PrepareConfig.Stories,
    };

    /// <summary>Names of data sets that waiting and working runs are about to make.</summary>
    public IReadOnlySet<string> NamesInWork { get; set; } = new HashSet<string>();

    public RunConfig Config { get; private set; } = new();

    public PrepareConfig Recipe => Config.Prepare;

    public IReadOnlyList<Problem> Problems { get; private set; } = [];

    /// <summary>Of the files on this machine; null for other sources and until <see cref="TakeFacts"/>.</summary>
    public SourceFacts? Facts => _facts is { } known && known.Source == Source ? known : null;

    /// <summary>True while the files still have to be looked at.</summary>
    public bool NeedsFacts => Mode is SourceMode.Files or SourceMode.Upload && Source.Length > 0 && Facts is null;

    /// <summary>What is not as it was at the beginning, for the address.</summary>
    public IReadOnlyDictionary<string, string> State
    {
        get
        {
            Dictionary<string, string> state = new(StringComparer.Ordinal) { ["add"] = Mode.ToString().ToLowerInvariant() };
            if (Source.Length > 0 && Mode != SourceMode.Stories) state["source"] = Source;
            foreach (Setting setting in Fields)
                if (_typed.TryGetValue(setting.Path, out string? text)) state[setting.Name] = text;
            return state;
        }
    }

    /// <summary>Finds the files that a source on this machine means. A folder with very many takes its time: not for the page's own thread.</summary>
    public static SourceFacts FactsOf(string source)
    {
        try
        {
            if (OpenedSource.NameOf(source) is not null) return new SourceFacts(source, 0, 0, $"there is no file or folder {source} here; for a data set of the Hub choose the Hub above");
            Source files = Data.Documents.Source.Open(source);
            return new SourceFacts(source, files.Files.Count, files.Length, null);
        }
        catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException or FormatException)
        {
            return new SourceFacts(source, 0, 0, e.Message.Split(" (Parameter")[0].TrimEnd('.'));
        }
    }

    public void TakeFacts(SourceFacts facts)
    {
        _facts = facts;
        Check();
    }

    public void Choose(SourceMode mode)
    {
        Mode = mode;
        Check();
    }

    public void TypeHub(int part, string text)
    {
        _hub[part] = text;
        // What is pasted may be the whole address.
        if (part == 0 && (HubName.IsHub(text) || text.Contains(':', StringComparison.Ordinal))) TakeSource(HubName.IsHub(text) ? text : HubName.Prefix + text);
        Check();
    }

    public void TypePath(string text)
    {
        if (HubName.IsHub(text)) TakeSource(text);
        else _path = text;
        Check();
    }

    public void ChooseUploaded(string path)
    {
        (Mode, _uploaded) = (SourceMode.Upload, path);
        Check();
    }

    public string Text(Setting setting) => _typed.TryGetValue(setting.Path, out string? typed) ? typed : ConfigTable.Text(Settings.Get(Config, setting));

    public void Type(Setting setting, string text)
    {
        _typed[setting.Path] = text;
        Check();
    }

    public void Type(string name, string text) => Type(Field(name), text);

    public static Setting Field(string name) => Fields.First(f => f.Name == name);

    public IEnumerable<Problem> ProblemsOf(string field) => Problems.Where(p => p.Field == field);

    /// <summary>Checks the tokenizer's name too: loading one takes a moment, so that this is not done at every key.</summary>
    public void CheckTokenizer()
    {
        if (_tokenizerChecked == Recipe.Tokenizer) return;
        _tokenizerChecked = Recipe.Tokenizer;
        RunConfig alone = Config with { Prepare = new PrepareConfig { Tokenizer = Recipe.Tokenizer, Dataset = "name" } };
        _tokenizerProblems = [.. RunConfigChecks.All(alone, _store).Where(p => p.Field == "prepare.tokenizer")];
        Check();
    }

    /// <summary>Everything but what <see cref="FactsOf"/> and <see cref="CheckTokenizer"/> find out.</summary>
    public void Check()
    {
        List<Problem> problems = [];
        RunConfig config = new() { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Source = Source } };
        config = config with { Prepare = config.Prepare with { Dataset = SuggestName() } };
        foreach ((string path, string text) in _typed)
            if (path != "prepare.dataset" || text.Length > 0) config = Settings.BindText(config, path, text, problems);
        Config = config with { Name = $"Prepare {config.Prepare.Dataset}" };
        Problems =
        [
            .. SourceProblems(), .. NameProblems(config.Prepare.Dataset), .. problems, .. Recipe.Tokenizer == _tokenizerChecked ? _tokenizerProblems : [],
            // A name is suggested as soon as there is a source.
            .. Config.Problems().Where(p => p.Field != "prepare.source" && problems.All(q => q.Field != p.Field) && (p.Field != "prepare.dataset" || p.Value.Length > 0 || Source.Length > 0)),
        ];
    }

    private IEnumerable<Problem> SourceProblems()
    {
        if (Source.Length == 0)
        {
            yield return new Problem("prepare.source", "", Mode switch
            {
                SourceMode.Hub => "name a data set, such as roneneldan/TinyStories",
                SourceMode.Upload => "choose a file to send, or one that was sent before",
                _ => "name a file, a folder or a pattern such as /data/*.jsonl.gz",
            });
            yield break;
        }
        if (Mode == SourceMode.Hub)
        {
            string? wrong = null;
            try { _ = HubName.Parse(Source); }
            catch (FormatException e) { wrong = e.Message; }
            if (wrong is not null) yield return new Problem("prepare.source", Short(Source), wrong);
        }
        else if (Facts is { Problem: { } problem })
        {
            yield return new Problem("prepare.source", Short(Source), problem);
        }
    }

    private IEnumerable<Problem> NameProblems(string name)
    {
        if (!Store.IsName(name)) yield break;
        if (Directory.Exists(_store.DatasetFolder(name))) yield return new Problem("prepare.dataset", name, "there is a data set of that name: choose another name, or delete that one");
        else if (NamesInWork.Contains(name)) yield return new Problem("prepare.dataset", name, "a run that waits or works makes a data set of that name: choose another");
    }

    private void TakeSource(string source)
    {
        HubName? name = null;
        try { name = HubName.IsHub(source) ? HubName.Parse(source) : null; }
        catch (FormatException) { /* as it stands, so that it can be mended */ }
        if (name is not null) (Mode, _hub[0], _hub[1], _hub[2], _hub[3]) = (SourceMode.Hub, name.Dataset, name.Subset ?? "", name.Split ?? "", name.Revision == HubName.MainRevision ? "" : name.Revision);
        else if (HubName.IsHub(source)) (Mode, _hub[0]) = (SourceMode.Hub, source[HubName.Prefix.Length..]);
        else if (source == PrepareConfig.Stories) Mode = SourceMode.Stories;
        else if (System.IO.Path.GetDirectoryName(source) == _store.UploadsFolder) (Mode, _uploaded) = (SourceMode.Upload, source);
        else (Mode, _path) = (SourceMode.Files, source);
    }

    private string HubAddress()
    {
        string[] parts = [.. _hub.Select(p => p.Trim())];
        return parts[0].Length == 0 ? "" : new HubName(parts[0], parts[1].Length > 0 ? parts[1] : null, parts[2].Length > 0 ? parts[2] : null, parts[3].Length > 0 ? parts[3] : HubName.MainRevision).ToString();
    }

    /// <summary>A name for the data set, after its source; one that is free.</summary>
    private string SuggestName()
    {
        string from = Mode switch
        {
            SourceMode.Hub => _hub[0].Split('/')[^1].Trim() + (_hub[1].Trim().Length > 0 && _hub[1].Trim() != KnownDatasets.DefaultSubset ? "-" + _hub[1].Trim() : ""),
            SourceMode.Stories => PrepareConfig.Stories,
            _ => System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(Source)).Split('.')[0],
        };
        string name = Unusual().Replace(from, "-").Trim('-', '.', '_');
        if (name.Length == 0) return "";
        name = name[..Math.Min(name.Length, 56)].ToLowerInvariant();
        string free = name;
        for (int i = 2; Directory.Exists(System.IO.Path.Combine(_store.DatasetsFolder, free)) || NamesInWork.Contains(free); i++) free = $"{name}-{i.ToString(CultureInfo.InvariantCulture)}";
        return free;
    }

    private static string Short(string text) => text.Length <= 80 ? text : text[..77] + "...";

    [GeneratedRegex("[^A-Za-z0-9_-]+")]
    private static partial Regex Unusual();
}
