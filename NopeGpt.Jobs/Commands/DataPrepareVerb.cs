using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt data prepare`: text, conversations or pairs to a token file, or to a data set of the store by a run of its own. Its options are the
/// settings of a prepare run.</summary>
internal sealed class DataPrepareVerb : Verb
{
    private const string Section = "prepare", Dataset = "dataset", Source = "source", TokenizerName = "tokenizer";

    private readonly (Setting Setting, Option Option)[] _settings;
    private readonly Option<string?> _out = CommonOptions.Text("--out", "FILE", "New token file. tokenizer.json and, of conversations, a .messages file are put beside it. Stopped or killed, the same command goes on.");
    private readonly Option<string?> _dataset = CommonOptions.Text("--dataset", "NAME", "Data set of the store to make by a run, which the dashboard shows; `nopegpt train` on its folder goes on with it.");
    private readonly Option<string?> _seed = CommonOptions.Text("--seed", "N", "The same seed makes the same stories.", new RunConfig().Seed.ToString(CultureInfo.InvariantCulture));
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Json();

    public DataPrepareVerb() : base("prepare", "Encode documents, conversations or preference pairs with all cores, resumably, to a token file or a data set of the store.") =>
        _settings = [.. Settings.All.Where(s => s.Section == Section && s.Name != Dataset).Select(s => (s, OptionOf(s)))];

    public override IReadOnlyList<Option> Options => [.. _settings.Select(s => s.Option), _out, _dataset, _seed, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        List<Problem> problems = [];
        RunConfig config = new() { Kind = RunKind.Prepare, Seed = arguments.Seed(_seed) ?? new RunConfig().Seed };
        foreach ((Setting setting, Option option) in _settings)
        {
            if (option is Option<bool> flag) config = Settings.Set(config, setting.Path, arguments.Flag(flag));
            else if (arguments.Text((Option<string?>)option) is { } text) config = Settings.BindText(config, setting.Path, text, problems);
        }
        string? file = arguments.Text(_out), name = arguments.Text(_dataset);
        if ((file is null) == (name is null)) arguments.Problems.Add("give either --out FILE for a token file or --dataset NAME for a data set of the store");
        if (file is not null && PreparedFile.Problem(file) is { } problem) arguments.Add(_out.Name, file, problem);
        // Where there is none it is said already, and any would do for the other checks.
        config = config with { Prepare = WithFullPaths(config.Prepare) with { Dataset = name ?? "file" } };
        Store store = arguments.Store(_root);
        problems.AddRange(RunConfigChecks.All(config, store));
        foreach (Problem wrong in problems.Where(p => p.Field != $"{Section}.{Source}" || arguments.Text(Of(Source)) is not null)) arguments.Add(wrong with { Field = InOptions(wrong.Field), Message = InOptions(wrong.Message) });
        bool json = arguments.Flag(_json);
        return cancel => name is not null ? RunAsync(store, config, json, cancel) : Task.Run(() => Make(store, config, file!, json, cancel), CancellationToken.None);
    }

    /// <summary>A token file, in this process.</summary>
    private static int Make(Store store, RunConfig config, string file, bool json, CancellationToken cancel)
    {
        PreparedFile target = new(file);
        Stopwatch watch = Stopwatch.StartNew();
        TerminalProgress terminal = new(Console.Error);
        Lock order = new();
        void Say(string line)
        {
            lock (order)
            {
                terminal.End();
                Console.Error.WriteLine(line);
            }
        }
        MakerReports reports = new(Say, warning => Say("warning: " + warning), progress =>
        {
            lock (order) terminal.Show(progress);
        }, Stages: false);
        MadeDataset made;
        try { made = target.Make(store, config.Prepare, config.Seed, reports, TimeProvider.System, cancel); }
        catch (OperationCanceledException)
        {
            Say("stopped: the same command goes on from the last finished shard");
            throw;
        }
        catch (UserException e)
        {
            terminal.End();
            throw new UserException(InOptions(e.Message), e.ExitCode);
        }
        terminal.End();
        Tell(made.Info, Path.GetFullPath(file), target.TokenizerFile, null, made.Resumed, watch.Elapsed.TotalSeconds, json);
        return ExitCode.Done;
    }

    /// <summary>A data set of the store, by a run.</summary>
    private static async Task<int> RunAsync(Store store, RunConfig config, bool json, CancellationToken cancel)
    {
        DateTimeOffset now = TimeProvider.System.GetUtcNow();
        RunFolder folder = RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(now), now, [], config with { Name = $"Prepare {config.Prepare.Dataset}" }));
        await Console.Error.WriteLineAsync($"run {folder.Id} ({folder.Path})");
        Stopwatch watch = Stopwatch.StartNew();
        int code = await TrainerProcessMain.RunAsync(folder.Path, store, detached: false, null, cancel, new TerminalProgress(Console.Error).Show);
        if (code == ExitCode.StoppedAndSaved) await Console.Error.WriteLineAsync($"Go on with: nopegpt train {folder.Path} --root {store.Root}");
        if (code != ExitCode.Done) return code;
        string dataset = store.DatasetFolder(config.Prepare.Dataset);
        Tell(DatasetInfo.Read(dataset), store.DatasetTokens(config.Prepare.Dataset), Path.Combine(dataset, Data.Tokenization.Tokenizer.FileName), folder.Id, default, watch.Elapsed.TotalSeconds, json);
        return code;
    }

    private static void Tell(DatasetInfo info, string file, string tokenizer, string? run, ResumedWork resumed, double seconds, bool json)
    {
        double speed = Math.Max(0, info.TextBytes - resumed.TextBytes) / 1e6 / seconds;
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{file}: {info.Documents:#,0} {(info.Kind == DatasetKind.Text ? "documents" : "conversations")}, {info.Tokens:#,0} tokens of {info.VocabularySize:#,0}, {info.BytesPerToken:0.00} bytes a token, {info.Statistics!.DuplicateShare:P1} repeated, in {seconds:0.0} s ({speed:0.0} MB/s)"));
        if (!json) return;
        Console.WriteLine(JsonSerializer.Serialize(new
        {
            Out = file, Tokenizer = tokenizer, Dataset = run is null ? null : info.Recipe.Dataset, Run = run, info.Documents, info.Tokens, info.TextBytes, info.BytesPerToken, info.VocabularySize,
            Kind = info.Kind.ToString().ToLowerInvariant(), info.Columns, info.Origin, info.Licence, Duplicates = info.Statistics.DuplicateShare, Seconds = Math.Round(seconds, 3),
            MegabytesPerSecond = Math.Round(speed, 3), ResumedDocuments = resumed.Documents, info.Reading, info.Chat,
        }, Settings.Json));
    }

    /// <summary>The trainer that goes on with a run may work in another folder.</summary>
    private static PrepareConfig WithFullPaths(PrepareConfig recipe)
    {
        string source = recipe.Source, tokenizer = recipe.Tokenizer;
        try { if (source is not (PrepareConfig.Stories or "") && OpenedSource.NameOf(source) is null) source = Path.GetFullPath(source); }
        catch (Exception e) when (e is FormatException or ArgumentException) { /* the checks say what is wrong with it */ }
        if (tokenizer.Length > 0 && Path.Exists(tokenizer)) tokenizer = Path.GetFullPath(tokenizer);
        return recipe with { Source = source, Tokenizer = tokenizer };
    }

    private static string InOptions(string text) => text.Replace(Section + ".", "--", StringComparison.Ordinal);

    private Option<string?> Of(string setting) => (Option<string?>)_settings.First(s => s.Setting.Name == setting).Option;

    private static Option OptionOf(Setting setting)
    {
        string name = "--" + setting.Name, description = setting.Description;
        if (setting.Type == typeof(bool)) return CommonOptions.Flag(name, description);
        string value = setting.Name switch
        {
            Source => "PATH_OR_HUB_NAME",
            TokenizerName => "NAME_OR_DIR_OR_FILE",
            _ => setting.Type == typeof(string) ? "TEXT" : setting.Type.IsEnum ? "KIND" : "N",
        };
        string? usual = setting.Name == Source || setting.Default is "" or null ? null : setting.Type.IsEnum ? Settings.SnakeCase(setting.Default.ToString()!) : Convert.ToString(setting.Default, CultureInfo.InvariantCulture);
        return CommonOptions.Text(name, value, description, usual, required: setting.Name == Source);
    }
}
