namespace NopeGpt.Web.Uploads;

/// <summary>A file that is not taken, with the status of the HTTP answer and a sentence that says what to do.</summary>
internal sealed class UploadException(int status, string message) : Exception(message)
{
    public int Status => status;
}
