using System.CommandLine;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Jobs.Commands;

/// <summary>The names of NoPE GPT's scripts for pretraining and fine-tuning. Most are settings of ours under the same name; the others are translated here, or refused with what
/// takes their place.</summary>
internal sealed class ReferenceNames
{
    private static readonly (string Name, string Value, string Instead)[] OfBoth =
    [
        ("num_dataset_processes", "N", "a run trains on a data set that is prepared already: the run that prepares one has prepare.workers for it"),
        ("checkpoint_path", "PATH", "checkpoints lie in the run's folder, in checkpoints/: --root moves the store that it is in, and --resume ID goes on from the newest of them"),
        ("run_dir_path", "DIR", "the files for TensorBoard lie in the run's folder, in tensorboard/: show them with `tensorboard --logdir` of the storage root's runs folder"),
    ];

    private static readonly (string Name, string Value, string Instead)[] OfPretraining =
    [
        ("dataset_subset", "NAME", "a run trains on a data set that is prepared already: prepare that subset once (a run of the kind prepare with the source hub:HuggingFaceFW/fineweb:NAME) and name it with --dataset"),
        ("dataset_path", "DIR", "data sets lie in the storage root, which --root names: give --dataset the name of one there, or the path of a token file"),
    ];

    private readonly RunKind _kind;

    private readonly Option<string?> _anneal = new("--anneal_learning_rate")
    {
        HelpName = "true|false", Description = "The reference's name for --schedule linear, which falls to 0 at the last step; false is --schedule constant.", Arity = ArgumentArity.ZeroOrOne,
    };

    private readonly Option<string?> _encoding = CommonOptions.Text("--token_encoding", "NAME", "The reference's name for the tokenizer: it is checked that the data set was made with it.");

    private readonly List<(Option<string?> Option, string Instead)> _replaced;

    public ReferenceNames(RunKind kind)
    {
        _kind = kind;
        Aliases = RenamedOf(kind).ToLookup(r => r.Path, r => r.Name);
        _replaced = [.. OfBoth.Concat(kind == RunKind.Pretrain ? OfPretraining : []).Select(r => (CommonOptions.Text("--" + r.Name, r.Value, "Of the reference; refused with what takes its place."), r.Instead))];
    }

    /// <summary>The setting that a name of the reference means where it is not its own, and how the name's values are said as that setting's.</summary>
    public static (string Path, Func<string, string> Reword)? Meaning(string name, RunKind kind)
    {
        string plain = name.Replace('-', '_');
        if (RenamedOf(kind).FirstOrDefault(r => r.Name == plain) is { Path: { } path }) return (path, value => value);
        if (kind != RunKind.Pretrain || plain != "anneal_learning_rate") return null;
        return ("optimizer.schedule", value => !bool.TryParse(value, out bool anneals) ? value : RunOptions.Words(anneals ? LearningRateSchedule.Linear : LearningRateSchedule.Constant));
    }

    private static (string Path, string Name)[] RenamedOf(RunKind kind) => kind switch
    {
        RunKind.Finetune => [("training.sharding_level", "ddp_sharding_level"), ("finetune.lora_dropout", "dropout")],
        RunKind.Pretrain => [("training.sharding_level", "ddp_sharding_level")],
        _ => [],
    };

    /// <summary>Names of the reference for settings that are called otherwise here, by path.</summary>
    public ILookup<string, string> Aliases { get; }

    /// <summary>The same for the help: they are read as the setting's own.</summary>
    public IEnumerable<Option> Renamed => Settings.All.SelectMany(s => Aliases[s.Path].Select(alias => CommonOptions.Text("--" + alias, "N", $"The reference's name for --{s.Name}.")));

    /// <summary>Those that do something.</summary>
    public IReadOnlyList<Option> Translated => _kind == RunKind.Pretrain ? [_anneal, _encoding] : [];

    public IReadOnlyList<Option> Options => [.. Translated, .. _replaced.Select(r => r.Option)];

    /// <summary>The config with what these options mean; problems where they mean nothing, or something else than others say.</summary>
    /// <param name="given">Paths of the settings that the command line gives.</param>
    public RunConfig Read(Arguments arguments, RunConfig config, IReadOnlySet<string> given)
    {
        foreach ((Option<string?> option, string instead) in _replaced)
        {
            if (arguments.Text(option) is { } value) arguments.Add(option.Name, value, instead);
        }
        return _kind == RunKind.Finetune ? config : Anneal(arguments, config, given.Contains("optimizer.schedule"));
    }

    /// <summary>Adds a problem where the data set was made with another tokenizer than the one named.</summary>
    public void CheckEncoding(Arguments arguments, DataConfig data, Store store)
    {
        if (arguments.Text(_encoding) is not { } wanted) return;
        if (!Tokenizer.IsPublished(wanted))
        {
            string? nearest = Settings.Nearest(wanted, Tokenizer.Published);
            arguments.Add(_encoding.Name, wanted, $"there is no such encoding{(nearest is null ? "" : $"; did you mean {nearest}?")} Known are {string.Join(", ", Tokenizer.Published)}");
            return;
        }
        try
        {
            Tokenizer made = Tokenizer.Load(Store.TokenizerBeside(store.ResolveTokenFile(data.Dataset)), store.TokenizerPlaces);
            if (made.PublishedName != wanted)
                arguments.Add(_encoding.Name, wanted, $"{data.Dataset} was made with {made.PublishedName ?? "a tokenizer of its own"}, and the tokenizer belongs to the data set: leave this out, or prepare the text with {wanted}");
        }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or UnauthorizedAccessException) { /* what is wrong with the data set is said of that */ }
    }

    /// <summary>What is planned is told from what is mistyped.</summary>
    public static Problem Reword(Problem problem) => problem is { Field: "--method", Value: "dpo" or "reward" }
        ? problem with { Message = "is not there yet: use lora or full, which learn the replies of conversations; of preference pairs prepare the chosen ones (prepare.kind chat)" } : problem;

    private RunConfig Anneal(Arguments arguments, RunConfig config, bool scheduled)
    {
        if (!arguments.Has(_anneal)) return config;
        string text = arguments.Text(_anneal) ?? "true";
        if (!bool.TryParse(text, out bool anneals))
        {
            arguments.Add(_anneal.Name, text, "give true or false");
            return config;
        }
        LearningRateSchedule schedule = anneals ? LearningRateSchedule.Linear : LearningRateSchedule.Constant;
        if (scheduled && config.Optimizer.Schedule != schedule)
            arguments.Add(_anneal.Name, text, $"means --schedule {RunOptions.Words(schedule)}, and --schedule {RunOptions.Words(config.Optimizer.Schedule)} is given: leave one of them out");
        return config with { Optimizer = config.Optimizer with { Schedule = schedule } };
    }
}
