namespace NopeGpt.Data.Documents.Hub;

/// <summary>A public data set that this program knows.</summary>
public sealed record KnownDataset
{
    /// <summary>OWNER/NAME on the Hub.</summary>
    public required string Name { get; init; }

    public required DatasetKind Kind { get; init; }

    /// <summary>Subsets by their names on the Hub, the default first. Further ones may be there.</summary>
    public IReadOnlyList<string> Subsets { get; init; } = [];

    /// <summary>The subset that is meant when none is named; null for the data set's own default.</summary>
    public string? DefaultSubset { get; init; }

    /// <summary>The split to train on.</summary>
    public string DefaultSplit { get; init; } = DataFiles.Train;

    /// <summary>Other splits that are there.</summary>
    public IReadOnlyList<string> OtherSplits { get; init; } = [];

    /// <summary>The columns that matter.</summary>
    public required ColumnMapping Columns { get; init; }

    /// <summary>As the data set's card names it.</summary>
    public required string Licence { get; init; }

    /// <summary>About how much it is, in words. Exact sizes come with the list of files.</summary>
    public required string Size { get; init; }

    public required string Summary { get; init; }

    /// <summary>What a user should know before using it; null for nothing.</summary>
    public string? Peculiar { get; init; }

    /// <summary>Its name as the address of a source.</summary>
    public HubName Address(string? subset = null) => new(Name, subset ?? DefaultSubset);
}

/// <summary>The catalogue of data sets that the reference systems train on.</summary>
public static class KnownDatasets
{
    public const string DefaultSubset = "default";

    private static readonly string[] _samples = ["sample-10BT", "sample-100BT", "sample-350BT", DefaultSubset];

    public static IReadOnlyList<KnownDataset> All { get; } =
    [
        new()
        {
            Name = "HuggingFaceFW/fineweb", Kind = DatasetKind.Text, Subsets = _samples, DefaultSubset = _samples[0], Columns = new() { Text = "text" }, Licence = "odc-by",
            Size = "samples of about 10, 100 and 350 billion GPT-2 tokens; over 15 trillion in full",
            Summary = "English web text from CommonCrawl, cleaned and deduplicated",
            Peculiar = "The subset default is all of it; each crawl is a subset of its own, such as CC-MAIN-2024-10.",
        },
        new()
        {
            Name = "HuggingFaceFW/fineweb-edu", Kind = DatasetKind.Text, Subsets = _samples, DefaultSubset = _samples[0], Columns = new() { Text = "text" }, Licence = "odc-by",
            Size = "samples of about 10, 100 and 350 billion GPT-2 tokens; 1.3 trillion in full",
            Summary = "the pages of FineWeb that a classifier found to be educational",
            Peculiar = "The subset default is all of it; each crawl is a subset of its own, such as CC-MAIN-2024-10.",
        },
        new()
        {
            Name = "Skylion007/openwebtext", Kind = DatasetKind.Text, Columns = new() { Text = "text" }, Licence = "cc0-1.0 (for the collection; the pages keep their own)",
            Size = "8,013,769 documents, about 40 GB of text",
            Summary = "web pages that Reddit users linked to, an open reproduction of GPT-2's training text",
            Peculiar = "Older revisions hold archives and a program in place of parquet files; of these the Hub offers a converted part only.",
        },
        new()
        {
            Name = "roneneldan/TinyStories", Kind = DatasetKind.Text, OtherSplits = ["validation"], Columns = new() { Text = "text" }, Licence = "cdla-sharing-1.0",
            Size = "about 2 GB of text",
            Summary = "short stories in the words of a small child, written by GPT-3.5 and GPT-4",
            Peculiar = "Beside the parquet files there are TinyStoriesV2-GPT4-train.txt and -valid.txt (GPT-4 only); download these and give them as files.",
        },
        new()
        {
            Name = "HuggingFaceTB/smoltalk", Kind = DatasetKind.Chat, DefaultSubset = "all", OtherSplits = ["test"], Columns = new() { Messages = "messages" }, Licence = "apache-2.0",
            Subsets =
            [
                "all", "apigen-80k", "everyday-conversations", "explore-instruct-rewriting", "longalign", "metamathqa-50k", "numina-cot-100k", "openhermes-100k", "self-oss-instruct",
                "smol-constraints", "smol-magpie-ultra", "smol-rewrite", "smol-summarize", "systemchats-30k",
            ],
            Size = "about one million conversations in all; everyday-conversations has some two thousand",
            Summary = "synthetic conversations on which SmolLM2 was fine-tuned",
            Peculiar = "The subset all is the mixture of the others and names the origin of each conversation in the column source.",
        },
        new()
        {
            Name = "HuggingFaceH4/ultrafeedback_binarized", Kind = DatasetKind.Preference, DefaultSplit = "train_prefs", OtherSplits = ["test_prefs", "train_sft", "test_sft", "train_gen", "test_gen"],
            Columns = new() { Prompt = "prompt", Chosen = "chosen", Rejected = "rejected" }, Licence = "mit",
            Size = "61,135 pairs in train_prefs; 0.65 GB with all splits",
            Summary = "prompts with a better and a worse answer, scored by GPT-4",
            Peculiar = "For fine-tuning take the split train_sft and the column messages. chosen and rejected are whole conversations, the prompt included.",
        },
        new()
        {
            Name = "tatsu-lab/alpaca", Kind = DatasetKind.Chat, Columns = new() { Prompt = "instruction", Input = "input", Completion = "output" }, Licence = "cc-by-nc-4.0",
            Size = "52,002 instructions",
            Summary = "instructions with answers by text-davinci-003",
            Peculiar = "Not for commercial use. The column text holds the three fields joined by a template.",
        },
        new()
        {
            Name = "Anthropic/hh-rlhf", Kind = DatasetKind.Preference, Subsets = [DefaultSubset, "harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"], OtherSplits = ["test"],
            Columns = new() { Chosen = "chosen", Rejected = "rejected" }, Licence = "mit",
            Size = "about 160,800 pairs in train",
            Summary = "dialogues with a more and a less helpful or harmless last answer, chosen by people",
            Peculiar = "Offensive by design. Each text is a transcript of turns that begin with Human: and Assistant:. The folder red-team-attempts holds records of another form. Its makers advise against fine-tuning on it as plain dialogue.",
        },
    ];

    /// <summary>The data set of that name, whatever the case of its letters; null when it is not known.</summary>
    public static KnownDataset? Find(string name) => All.FirstOrDefault(d => string.Equals(d.Name, name, StringComparison.OrdinalIgnoreCase));
}
