namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>Where the form looks for records.</summary>
public enum SourceMode
{
    /// <summary>A data set of the Hub, by name.</summary>
    Hub,

    /// <summary>A path, a folder or a pattern on this machine.</summary>
    Files,

    /// <summary>A file that was sent to the dashboard.</summary>
    Upload,

    /// <summary>Stories that the program makes.</summary>
    Stories,
}
